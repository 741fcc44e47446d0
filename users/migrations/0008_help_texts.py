import django.core.validators
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('users', '0007_normalised_names'),
    ]

    operations = [
        migrations.AlterField(
            model_name='user',
            name='email',
            field=models.EmailField(blank=True, help_text='E-mail address; unique, ignoring case.', max_length=255, null=True, validators=[django.core.validators.RegexValidator('^[!#-~]+\\Z', 'Use ASCII letters, digits and signs without quotes only.')]),
        ),
        migrations.AlterField(
            model_name='user',
            name='username',
            field=models.CharField(help_text='3–50 letters, digits or . _ + -; unique, ignoring case.', max_length=50, validators=[django.core.validators.MinLengthValidator(3), django.core.validators.RegexValidator('^[A-Za-z0-9_.+-]+\\Z', 'Use letters, digits and the characters . _ + - only.')]),
        ),
    ]
